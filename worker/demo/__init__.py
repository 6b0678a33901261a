"""The demo: synthetic card payments with planted anomalies, an embedded broker and the tour through both."""
