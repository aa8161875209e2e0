"""Recomputes what was announced of Trainium3 and CS-3 as a pair, with the conditions under which it holds."""
