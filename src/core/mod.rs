//! Pure domain: no async, no I/O, no clock, no randomness, no logging, no wire shapes.
