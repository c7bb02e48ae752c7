"""The embedded model's parts: what it says (replies.py and above), and how the API writes it (requests.py, events.py)."""
