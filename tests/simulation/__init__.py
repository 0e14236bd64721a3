"""The deterministic simulation: the real engine and runner on a virtual clock, against a modelled broker and venue.

One seed decides everything: what is published, what the venue does with it, which links break and when the worker is
killed. ``python -m tests.simulation --seeds 200`` runs many, ``--seed 17 --story`` replays one and tells it.
"""
