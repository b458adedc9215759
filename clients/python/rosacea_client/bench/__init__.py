"""`rosacea bench`: latency and throughput of a service under load.

A closed loop has a fixed number of callers, each of which calls again when it has its answer: it measures the maximum
throughput. An open loop calls at a fixed rate, independent of answers: it measures latency at a given load. Its latency
counts from when a call was due. Counted from when the call really began, a stalled service would delay the very calls
that would have shown the stall (coordinated omission).

The callers are coroutines of one process. On the service's own machine they take processor time from it.
"""
