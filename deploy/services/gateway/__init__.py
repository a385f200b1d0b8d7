"""Supabase's paths, keys, sign-in and Realtime in front of PostgreSQL and PostgREST, for the embedded stack only: it is not Supabase."""
