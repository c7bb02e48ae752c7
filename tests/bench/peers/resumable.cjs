// resumable-stream behind plain HTTP: POST begins an answer and carries it, GET goes on with it after so many characters.
"use strict";

const { createServer } = require("node:http");
const { createClient } = require("redis");
const { createResumableStreamContext } = require("resumable-stream");
const { tokens, ready } = require("./speech.cjs");

async function main({ store }) {
    const [publisher, subscriber] = [createClient({ url: store }), createClient({ url: store })];
    await Promise.all([publisher.connect(), subscriber.connect()]);
    const context = createResumableStreamContext({ waitUntil: null, publisher, subscriber });
    const answers = new Map(); // of each session: how many, and who waits for a reader

    async function begin(session, request) {
        let body = "";
        for await (const chunk of request) body += chunk;
        const { awaited, ...what } = JSON.parse(body);
        const number = (answers.get(session)?.number ?? 0) + 1;
        let read;
        const reader = new Promise((resolve) => (read = resolve));
        answers.set(session, { number, read });
        async function* source() {
            if (awaited) await reader;
            yield* tokens(what);
        }
        return context.createNewResumableStream(`${session}:${number}`, () => ReadableStream.from(source()));
    }

    async function resume(session, skip) {
        const stream = await context.resumeExistingStream(`${session}:${answers.get(session)?.number ?? 1}`, skip);
        answers.get(session)?.read();
        return stream;
    }

    async function answer(request, response) {
        const url = new URL(request.url, "http://here");
        const session = url.pathname.slice(3);
        const stream = await (request.method === "POST" ? begin(session, request) : resume(session, Number(url.searchParams.get("skip"))));
        if (!stream) return response.writeHead(404, { Connection: "close" }).end();
        response.writeHead(200, { "Content-Type": "text/plain" }).flushHeaders();
        for await (const text of stream) {
            if (response.destroyed) return;
            if (!response.write(text)) await new Promise((go) => response.once("drain", go).once("close", go));
        }
        response.end();
    }

    ready(createServer((request, response) => answer(request, response).catch(() => response.destroy())));
}

main(JSON.parse(process.argv[2]));
