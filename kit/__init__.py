"""Kit: real-time AI agents over WebSockets. Agents write to a transcript, connections read from it, and neither knows the other.

An evening's reading, in this order:

- what travels and what it means: packets, text, history, projection;
- the transcript in the store: store, log, scripts, commits, transcript, fork;
- who speaks: feed, ears, speech, voice, turn, instance;
- who is let in, and hears: auth, said, slots, connection, page, service, then server or asgi;
- who listens: client.

What a room has beside that is in room, presence, document, scribe, replica and runner. agents/ are models and scripts that speak, lab/ is
what the notebooks need, widgets/ what a page shows, chat/ the terminal. What may import what is a contract in pyproject.toml.
"""
