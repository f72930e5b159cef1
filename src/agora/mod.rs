//! Token bytes: AccessToken2 (007), AccessToken (006) and what a foreign token says. Pure: no IO, no clock, no randomness.
