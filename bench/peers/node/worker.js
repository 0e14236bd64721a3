// Node with amqplib and ws, written the usual way: callbacks, a confirm channel, one frame per command.
"use strict";
const amqplib = require("amqplib");
const WebSocket = require("ws");

const PREFETCH = 500;
const waiting = new Map(); // ClOrdID -> the command that it is part of
let reqid = 1;

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
    const command = waiting.get(report.ClOrdID);
    if (!command) return;
    const canceled = report.ExecType === "Canceled";
    if (canceled) waiting.delete(report.ClOrdID);
    const key = `${canceled ? "final.canceled" : "info.pending_cancel"}.${report.Symbol}`;
    const options = { persistent: true, contentType: "application/json" };
    channel.publish("cancel.results", key, Buffer.from(JSON.stringify(report)), options, (error) => {
      if (error) throw error;
      command.unconfirmed -= 1;
      if (command.unconfirmed === 0) channel.ack(command.message);
    });
  });

  await channel.consume("cancel.commands", (message) => {
    const { data } = JSON.parse(message.content);
    const command = { message, unconfirmed: 2 * data.length };
    for (const cancel of data) waiting.set(cancel.ClOrdID, command);
    reqid += 1;
    venue.send(JSON.stringify({ reqid, type: "OrderCancelRequest", data }));
  });
}

process.on("SIGTERM", () => process.exit(0));
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
