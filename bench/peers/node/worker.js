// Node with amqplib and ws, written the usual way: callbacks, a confirm channel, one frame per command.
// It forwards the bare reports; with EVENTS=contract it publishes events as the contract wants them.
"use strict";
const { createHash } = require("crypto");
const amqplib = require("amqplib");
const WebSocket = require("ws");

const PREFETCH = 500;
const WRAPPED = process.env.EVENTS === "contract";
const NAMESPACE = Buffer.from("6f0d1c2e98a45b1d8d5c0c5b1f7a3e21", "hex");
const WORKER = `node-${process.pid}`;
const waiting = new Map(); // ClOrdID -> the command that it is part of, and where in it
let reqid = 1;

function uuid5(name) {
  const digest = createHash("sha1").update(NAMESPACE).update(name).digest().subarray(0, 16);
  digest[6] = (digest[6] & 0x0f) | 0x50;
  digest[8] = (digest[8] & 0x3f) | 0x80;
  const hex = digest.toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

const utc = (ms) => `${new Date(ms).toISOString().slice(0, -1)}000Z`;

// The event of one report, and its AMQP properties.
function wrap({ message, received, sent }, index, report, final) {
  const { messageId, correlationId, timestamp, userId, appId } = message.properties;
  const outcome = final ? "canceled" : "pending_cancel";
  const eventId = uuid5(`${messageId}\n${index}\n${final ? "final" : `report\n${report.ExecID}`}`);
  const now = Date.now();
  const event = {
    event_id: eventId,
    command_id: messageId,
    index,
    outcome,
    final,
    sent: "yes",
    order_live: !final,
    symbol: report.Symbol,
    cl_ord_id: report.ClOrdID,
    orig_cl_ord_id: report.OrigClOrdID || null,
    order_id: report.OrderID,
    order: {
      status: report.OrdStatus,
      cum_qty: report.CumQty,
      leaves_qty: report.LeavesQty,
      avg_px: report.AvgPx,
      as_of: report.Timestamp,
    },
    report,
    error: null,
    supersedes: null,
    late: false,
    attempt: 1,
    lane: "cancel",
    worker: WORKER,
    session_id: null,
    user_id: userId || null,
    app_id: appId || null,
    reason: null,
    times: {
      enqueued: timestamp ? utc(timestamp * 1000) : null,
      received: utc(received),
      sent: utc(sent),
      reported: utc(now),
      published: utc(now),
    },
  };
  const properties = {
    messageId: eventId,
    correlationId: correlationId || messageId,
    type: outcome,
    appId: "cancel-worker",
    timestamp: Math.floor(now / 1000),
    headers: { command_id: messageId, final },
  };
  return [event, properties];
}

// Resolves once the session is subscribed to the reports.
function logIn(onReport) {
  return new Promise((resolve, reject) => {
    const venue = new WebSocket(process.env.VENUE_URL, { perMessageDeflate: false });
    let seen = 0;
    venue.on("error", reject);
    venue.on("open", () => venue._socket.setNoDelay(true));
    venue.on("message", (text) => {
      const frame = JSON.parse(text);
      seen += 1;
      if (seen === 1) venue.send(JSON.stringify({ reqid, type: "subscribe", streams: [{ name: "ExecutionReport" }] }));
      else if (seen === 2) resolve(venue);
      else if (frame.type === "ExecutionReport") frame.data.forEach(onReport);
    });
  });
}

async function main() {
  const connection = await amqplib.connect(process.env.AMQP_URL, { noDelay: true });
  const channel = await connection.createConfirmChannel();
  await channel.prefetch(PREFETCH);

  const venue = await logIn((report) => {
    const waits = waiting.get(report.ClOrdID);
    if (!waits) return;
    const { command, index } = waits;
    const canceled = report.ExecType === "Canceled";
    if (canceled) waiting.delete(report.ClOrdID);
    const key = `${canceled ? "final.canceled" : "info.pending_cancel"}.${report.Symbol}`;
    const [body, properties] = WRAPPED ? wrap(command, index, report, canceled) : [report, {}];
    const options = { persistent: true, mandatory: WRAPPED, contentType: "application/json", ...properties };
    channel.publish("cancel.results", key, Buffer.from(JSON.stringify(body)), options, (error) => {
      if (error) throw error;
      command.unconfirmed -= 1;
      if (command.unconfirmed === 0) channel.ack(command.message);
    });
  });

  await channel.consume("cancel.commands", (message) => {
    const { data } = JSON.parse(message.content);
    const now = Date.now();
    const command = { message, unconfirmed: 2 * data.length, received: now, sent: now };
    data.forEach((cancel, index) => waiting.set(cancel.ClOrdID, { command, index }));
    reqid += 1;
    venue.send(JSON.stringify({ reqid, type: "OrderCancelRequest", data }));
  });
}

process.on("SIGTERM", () => process.exit(0));
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
