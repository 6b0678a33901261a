"""What an operator looks at: logs, metrics, health."""
