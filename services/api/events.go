// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/events"
)

// EventPage is a page of events.
type EventPage struct {
	Items []events.Event `json:"items"`
	Next  *string        `json:"next" doc:"The cursor of the next page; null at the end. A page may be short where a filter leaves out many."`
}

type (
	// Window says which events are asked for.
	Window struct {
		Kinds []string  `query:"kind" doc:"Of connected, disconnected, denied, throttled, dropped, quota_80, quota_100, source_applied and source_failed, with commas; all if left out."`
		From  time.Time `query:"from" doc:"Leave out what is earlier; an hour ago if left out. The quota event_days is for how many days events are kept."`
		To    time.Time `query:"to" doc:"Leave out what is not earlier."`
	}
	listEventsInput struct {
		InTenant
		Window
		Paged
		Client string `query:"client" doc:"A client id; all if left out."`
	}
	timelineInput struct {
		InTenant
		Window
		Paged
		ClientID string `path:"client_id" doc:"The client id, percent-encoded."`
	}
	followEventsInput struct {
		InTenant
		Kinds  []string `query:"kind" doc:"As of list-events."`
		Client string   `query:"client" doc:"A client id; all if left out."`
		For    string   `query:"for" default:"5m" doc:"For how long, such as 30s; at most 5m: what the caller may do is looked at again with the next request."`
	}
	eventsOutput struct{ Body EventPage }
)

func (s *Server) eventRoutes() {
	const base, tag = "/v1/tenants/{tenant}", "Events"
	register(s, operation("list-events", http.MethodGet, base+"/events", tag, "List what happened to clients, the oldest first"), s.listEvents)
	op := operation("follow-events", http.MethodGet, base+"/events:stream", tag, "Follow what happens to clients, as server-sent events")
	op.Responses = map[string]*huma.Response{"200": {
		Description: fmt.Sprintf("An event for each, named by its kind, with what list-events has of it as data. A tenant is followed %d times at most at once (429), and all tenants of a process %d times (503).", followedOfTenant, followedAtOnce),
		Content:     map[string]*huma.MediaType{eventStream: {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	register(s, op, s.followEvents)
	register(s, operation("get-client-timeline", http.MethodGet, base+"/clients/{client_id}/timeline", tag, "List what happened to one client, the oldest first"), s.timeline)
}

const eventStream = "text/event-stream"

// defaultWindow is how much is listed where no beginning is asked for.
const defaultWindow = time.Hour

// query checks what is asked for, and holds it to the tenant's quota.
func (w *Window) query(now time.Time, t *tenancy.TenantRecord) (q events.Query, err error) {
	if q.Kinds, err = kindsOf(w.Kinds); err != nil {
		return q, err
	}
	limits, err := t.Limits()
	if err != nil {
		return q, err
	}
	q.Since, q.Until = w.From, w.To
	if q.Since.IsZero() {
		q.Since = now.Add(-defaultWindow)
	}
	if !q.Until.IsZero() && q.Until.Before(q.Since) {
		return q, errs.Coded(errs.Invalid, "range_invalid", "expected from to be before to")
	}
	if days := limits.EventDays; days >= 0 {
		if oldest := now.Add(-time.Duration(min(days, events.Days)) * 24 * time.Hour); q.Since.Before(oldest) {
			q.Since = oldest
		}
	}
	return q, nil
}

func kindsOf(names []string) (kinds []events.Kind, err error) {
	for _, name := range names {
		k := events.Kind(name)
		if !slices.Contains(events.Kinds(), k) {
			return nil, errs.Coded(errs.Invalid, "event_kind_unknown", "expected kinds of %v, found %q", events.Kinds(), name)
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

func (s *Server) listEvents(ctx context.Context, in *listEventsInput) (*eventsOutput, error) {
	return s.eventPage(ctx, &in.Window, &in.Paged, in.Client)
}

func (s *Server) timeline(ctx context.Context, in *timelineInput) (*eventsOutput, error) {
	return s.eventPage(ctx, &in.Window, &in.Paged, in.ClientID)
}

func (s *Server) eventPage(ctx context.Context, w *Window, p *Paged, client string) (*eventsOutput, error) {
	q, err := w.query(s.now(), tenantOf(ctx))
	if err != nil {
		return nil, err
	}
	if q.Cursor, err = readCursor(p.Cursor); err != nil {
		return nil, err
	}
	q.Client, q.Most = client, p.Limit
	page, err := s.cfg.Events.List(ctx, tenantOf(ctx).ID, q)
	if err != nil {
		return nil, err
	}
	out := &eventsOutput{Body: EventPage{Items: page.Events, Next: writeCursor(page.Next)}}
	if out.Body.Items == nil {
		out.Body.Items = []events.Event{}
	}
	return out, nil
}

const (
	// followMost is for how long events are followed; streamBeat how often something
	// is sent, so that nobody in between takes the stream for dead.
	followMost = 5 * time.Minute
	streamBeat = 15 * time.Second
	// streamStall is how long a write may take, and streamAhead how many events wait
	// for it: a caller that is slower misses some, and is told.
	streamStall = 30 * time.Second
	streamAhead = 1000
)

func (s *Server) followEvents(ctx context.Context, in *followEventsInput) (*huma.StreamResponse, error) {
	kinds, err := kindsOf(in.Kinds)
	if err != nil {
		return nil, err
	}
	long, err := time.ParseDuration(in.For)
	if err != nil || long <= 0 || long > followMost {
		return nil, errs.Coded(errs.Invalid, "for_invalid", "for: expected a time up to %v, such as 30s, found %q", followMost, in.For)
	}
	tenant := tenantOf(ctx).ID
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humachi.Unwrap(hc)
		end, err := s.followed.begin(tenant)
		if err != nil {
			writeProblem(w, problemOf(err))
			return
		}
		defer end()
		hc.SetHeader("Content-Type", eventStream)
		ctx, cancel := context.WithTimeout(r.Context(), long)
		defer cancel()
		defer context.AfterFunc(s.streams, cancel)()
		s.stream(ctx, w, tenant, events.Query{Client: in.Client, Kinds: kinds})
	}}, nil
}

// stream sends events until ctx is done, or the caller is gone.
func (s *Server) stream(ctx context.Context, w http.ResponseWriter, tenant string, q events.Query) {
	ctx, cancel := context.WithCancel(ctx)
	came, missed, ended := make(chan events.Event, streamAhead), make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- s.cfg.Events.Follow(ctx, tenant, q, func(e events.Event) {
			select {
			case came <- e:
			default:
				select {
				case missed <- struct{}{}:
				default:
				}
			}
		})
	}()
	rc := http.NewResponseController(w)
	send := func(text string) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(streamStall)) // not everywhere
		_, err := w.Write([]byte(text))
		return err == nil && rc.Flush() == nil
	}
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	for ok := send(": what happens from now on\n\n"); ok; {
		select {
		case e := <-came:
			text, err := encodeEvent(e)
			ok = err == nil && send(text)
		case <-missed:
			ok = send("event: missed\ndata: \"events were left out: they came faster than they were read\"\n\n")
		case <-beat.C:
			ok = send(": still here\n\n")
		case err := <-ended:
			if ctx.Err() == nil {
				s.log.Warn("events are not followed any more", "tenant", tenant, "error", err)
			}
			cancel()
			return
		}
	}
	cancel()
	<-ended
}

// encodeEvent is an event as HTML's EventSource reads it.
func encodeEvent(e events.Event) (string, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("event: %s\ndata: %s\n\n", strings.TrimSpace(string(e.Kind)), data), nil
}
