"""The chaos suite: faults against a running gateway, each judged by a ledger of what was sent.

| module | what |
|---|---|
| `kinds` | the kinds of faults with what is expected, and the plan that a seed makes (pure) |
| `book` | sent against stored, window by window (pure) |
| `report` | what a fault's outcome misses; the file of results and the table (pure) |
| `api`, `stream`, `simulator`, `processes` | the edges: API server, NATS stream, simulator, processes |
| `setting` | a namespace with simulator, operator and a gateway of 16 shards under load |
| `faults` | how each kind strikes |
| `__main__` | `make chaos` |
"""
