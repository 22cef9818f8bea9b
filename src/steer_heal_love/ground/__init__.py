"""The floor every room stands on: models, chat templates, hooks, weights, scoring, records, errors.

Nothing here knows what a persona or a round is. Only this package registers hooks or edits weights.
"""
