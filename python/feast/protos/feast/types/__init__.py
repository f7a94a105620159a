"""Protobuf messages of the Feast contract."""
