"""The contract between the compiler and the runtime: what an engine directory holds. Imports nothing else of xllmc."""
