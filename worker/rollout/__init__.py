"""Which model version scores, and what a second one makes of the same records: canary after a swap, shadow before."""
