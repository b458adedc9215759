"""`rosacea bench`: latency and throughput of a service under load.

A closed loop has so many callers, each of which asks again when it has its answer: it finds the most that the service
can draw. An open loop asks at times that nobody's answer moves, as the world does: it finds how long people wait at a
given load. Its latency counts from when a call was meant to begin. Were it counted from when the call did begin, a
service that stands still would hold back the very calls that would have shown it (coordinated omission).

The callers are coroutines of one process. On the service's own machine they take processor time from it.
"""
