// What every arm's producer says when it is asked: the same as speech.py.
"use strict";

const BREATH = 64; // tokens after which a producer in a tight loop lets the sockets be served

const now = () => Number(process.hrtime.bigint() / 1000n) / 1e6; // CLOCK_MONOTONIC, as Python's time.monotonic()

async function* tokens({ tokens, size = 36, pace }) {
    const start = now();
    for (let i = 0; i < tokens; i++) {
        if (pace) {
            const wait = start + i / pace - now();
            if (wait > 0) await new Promise((go) => setTimeout(go, 1000 * wait));
            yield `${i + 1}@${now().toFixed(6)}x;`;
        } else {
            if (i % BREATH === 0) await new Promise(setImmediate);
            yield "x".repeat(size - 1) + ";";
        }
    }
}

// Print the address as the bench expects it, and go when stdin closes.
function ready(http) {
    http.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ url: `http://127.0.0.1:${http.address().port}` })));
    process.stdin.on("end", () => process.exit(0)).resume();
}

module.exports = { tokens, ready };
