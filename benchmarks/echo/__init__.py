"""The ceiling: `websockets` alone, without RPC, echoing a message as long as a small call."""
