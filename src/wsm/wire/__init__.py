"""Bytes to events and back: signatures, the secrets of sessions, one module per gateway vendor.

Pure functions over bytes; imports the standard library, msgspec and `core`.
"""
