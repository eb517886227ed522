// SPDX-License-Identifier: Apache-2.0

// Package chaos holds a region of real processes to what it promises, while
// they are killed, cut off, emptied and started again: no acknowledged message
// is lost, none of QoS 2 comes twice, order holds for each publisher, topic and
// QoS, and every client comes back.
//
// Region is the processes (region.go) and, where network namespaces are
// allowed, the network between them (network.go). Load is the clients, with an
// account of what was acknowledged and what came (load.go, publisher.go,
// subscriber.go, account.go). Faults do the damage (faults_test.go). Its
// goroutines are those of its clients, and one for each process; all end with
// the test.
package chaos
