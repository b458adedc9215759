"""The API contract in Python, shared by client and service and free of torch: field rules, errors, marks."""
