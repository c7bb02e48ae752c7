// @ts-check
/**
 * Page: a room in a browser's own window. It comes with a ticket behind the `#` of its link, which leaves the address bar at once and is
 * exchanged for a cookie that no script can read; after that, a reload needs neither.
 */

import { mount } from "./panel.js";
import { Shelf } from "./shelf.js";

const session = location.pathname.split("/").pop() ?? "";
const ticket = location.hash.slice(1);
history.replaceState(null, "", location.pathname); // neither history nor whoever looks over a shoulder keeps it
for (const name of document.querySelectorAll("title, h1")) name.textContent = `Room ${session}`;

/** Rounds without a hello after which somebody is told what may be the matter. */
const PATIENCE = 3;

/** @param {string} ticket */
async function enter(ticket) {
  const answer = await fetch("../cookie", { method: "POST", headers: { Authorization: `Bearer ${ticket}` } }).catch(() => null);
  // Who comes by a new link is whom that link was made for, and not who was here before.
  if (answer?.ok) new Shelf(session, () => localStorage).remove("ticket");
}

if (ticket) await enter(ticket);
const room = /** @type {HTMLElement} */ (document.getElementById("room"));
const door = /** @type {HTMLElement} */ (document.getElementById("door"));
mount(room, { session, url: location.origin.replace("http", "ws") });
const here = /** @type {any} */ (room.querySelector(".kit")).kit.session;
let waits = 0;
here.addEventListener("state", () => {
  const { phase } = here.state;
  if (phase === "open") waits = 0;
  if (phase === "waiting") waits += 1;
  door.hidden = waits < PATIENCE;
  door.textContent = door.hidden ? "" : "Not let in. A link works once and for a limited time, and the room may be closed by now: ask for another link.";
});
addEventListener("hashchange", () => location.reload()); // another link, opened in this window
