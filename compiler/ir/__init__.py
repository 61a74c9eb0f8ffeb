"""The program that passes rewrite: FX graphs over registered ops, with weights, states, a text form and a verifier."""
