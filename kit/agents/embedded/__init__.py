"""The embedded model's parts, in the order in which they rest on each other: requests, templates, intents, replies, events, delivery."""
