// socket.io with the Redis streams adapter and connection state recovery, as their documentation sets them up.
"use strict";

const { createServer } = require("node:http");
const { Server } = require("socket.io");
const { createClient } = require("redis");
const { createAdapter } = require("@socket.io/redis-streams-adapter");
const { tokens, ready } = require("./speech.cjs");

async function main({ store }) {
    const redis = createClient({ url: store });
    await redis.connect();
    const http = createServer();
    const io = new Server(http, { adapter: createAdapter(redis), connectionStateRecovery: { maxDisconnectionDuration: 120_000 } });
    io.on("connection", (socket) => {
        socket.on("join", (session) => {
            socket.join(session);
            socket.emit("joined");
        });
        socket.on("ask", async (session, what) => {
            for await (const token of tokens(what)) io.to(session).emit("token", token);
        });
    });
    ready(http);
}

main(JSON.parse(process.argv[2]));
