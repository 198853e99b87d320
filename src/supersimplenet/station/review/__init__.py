"""What people say about inspected parts: answers, what they agree on, what is asked next, and the rates that follow."""
