"""Embedded: the parts of the model in model.py, each on those before it: what a request holds (requests); what the script knows by heart
(templates), takes a prompt to mean (intents), and says (replies); how that is written (events); what a tape says in its place (heard,
player); and how either travels (delivery).
"""
