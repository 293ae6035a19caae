"""Mechanisms and models written in other frameworks; a process imports the one it sets up."""
