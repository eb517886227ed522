// SPDX-License-Identifier: Apache-2.0
//
// Runs MQTT.js through one URL and exits with 0 if everything arrived. The
// options come as JSON in the first argument: url, servername, ca, username,
// password, protocolVersion, prefix. Names are not resolved: every connection
// goes to 127.0.0.1.

import fs from 'node:fs'
import assert from 'node:assert/strict'
import mqtt from 'mqtt'

const o = JSON.parse(process.argv[2])
const lookup = (_host, options, done) =>
  options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)

function open (clientId, more = {}) {
  const tls = o.ca ? { ca: fs.readFileSync(o.ca), servername: o.servername } : {}
  return mqtt.connectAsync(o.url, {
    clientId: o.prefix + clientId,
    username: o.username,
    password: o.password,
    protocolVersion: o.protocolVersion,
    reconnectPeriod: 0,
    connectTimeout: 10000,
    wsOptions: { lookup, ...tls },
    ...tls,
    ...more
  })
}

// next resolves with the next message on a topic.
function next (client, topic) {
  return new Promise((resolve) => {
    const seen = (t, payload, packet) => {
      if (t !== topic) return
      client.off('message', seen)
      resolve({ payload, packet })
    }
    client.on('message', seen)
  })
}

setTimeout(() => { console.error('timeout'); process.exit(1) }, 60000).unref()

const t = (name) => `${o.prefix}/${name}`
const sub = await open('sub')
const pub = await open('pub')

for (const qos of [0, 1, 2]) {
  await sub.subscribeAsync(t(`q${qos}`), { qos })
  const got = next(sub, t(`q${qos}`))
  await pub.publishAsync(t(`q${qos}`), `at ${qos}`, { qos })
  const { payload, packet } = await got
  assert.equal(payload.toString(), `at ${qos}`)
  assert.equal(packet.qos, qos)
}

await pub.publishAsync(t('kept'), 'kept', { qos: 1, retain: true })
const kept = next(sub, t('kept'))
await sub.subscribeAsync(t('kept'), { qos: 1 })
assert.equal((await kept).packet.retain, true)
await pub.publishAsync(t('kept'), '', { qos: 1, retain: true })

const large = Buffer.alloc(1 << 20, 'x')
await sub.subscribeAsync(t('large'), { qos: 1 })
const whole = next(sub, t('large'))
await pub.publishAsync(t('large'), large, { qos: 1 })
assert.ok((await whole).payload.equals(large))

await sub.subscribeAsync(t('will'), { qos: 1 })
const gone = next(sub, t('will'))
const dying = await open('dying', { will: { topic: t('will'), payload: Buffer.from('gone'), qos: 1, retain: false } })
dying.stream.destroy()
assert.equal((await gone).payload.toString(), 'gone')

const session = o.protocolVersion === 5 ? { clean: false, properties: { sessionExpiryInterval: 300 } } : { clean: false }
const away = await open('away', session)
await away.subscribeAsync(t('away'), { qos: 2 })
await away.endAsync()
await pub.publishAsync(t('away'), 'while you were away', { qos: 2 })
const back = mqtt.connect(o.url, {
  clientId: o.prefix + 'away', username: o.username, password: o.password, protocolVersion: o.protocolVersion, reconnectPeriod: 0,
  wsOptions: { lookup, ...(o.ca ? { ca: fs.readFileSync(o.ca), servername: o.servername } : {}) }, ...session
})
const queued = next(back, t('away'))
const connack = await new Promise((resolve, reject) => { back.on('connect', resolve); back.on('error', reject) })
assert.equal(connack.sessionPresent, true)
assert.equal((await queued).payload.toString(), 'while you were away')

await Promise.all([sub.endAsync(), pub.endAsync(), back.endAsync()])
