"""How the service is seen from outside: metrics, logs and traces of its calls, and of the TorchServe behind them."""
