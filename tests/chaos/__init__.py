"""Whether the promises hold: load like WAHA's, faults of every kind, a checker that says what became of it.

`make chaos SEEDS=… MESSAGES=…` runs it; the last line is
`acked=… lost=… duplicated=… reordered=… indeterminate=… seeds=…`.
"""
