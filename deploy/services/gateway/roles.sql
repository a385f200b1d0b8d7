-- What a Supabase project has before its first migration, as far as ours need it: roles, the publication of Realtime, claims as SQL functions,
-- and tables of users that only the gateway touches.
-- Embedded stack only; never run against a real project. :service_password is put in by the stack.
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit password :service_password;
-- Roles of their own for the gateway, none of them superuser: one owns the users, one reads the write-ahead log.
create role supabase_auth_admin login noinherit password :service_password;
create role supabase_replication_admin login noinherit replication password :service_password;
grant anon, authenticated, service_role to authenticator;
grant usage on schema public to anon, authenticated, service_role;
create schema auth authorization supabase_auth_admin;
grant usage on schema auth to anon, authenticated, service_role;
create function auth.jwt() returns jsonb language sql stable
  as $$ select nullif(current_setting('request.jwt.claims', true), '')::jsonb $$;
create function auth.uid() returns uuid language sql stable as $$ select (auth.jwt() ->> 'sub')::uuid $$;
create function auth.role() returns text language sql stable as $$ select auth.jwt() ->> 'role' $$;
create publication supabase_realtime;

set local role supabase_auth_admin;
create table auth.users (
  id uuid primary key default gen_random_uuid(),
  email text unique not null,
  encrypted_password text not null,
  app_metadata jsonb not null default '{"provider": "email", "providers": ["email"]}',
  user_metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  last_sign_in_at timestamptz
);
create table auth.sessions (
  id uuid primary key,
  user_id uuid not null references auth.users on delete cascade,
  created_at timestamptz not null default now()
);
create table auth.refresh_tokens (
  token text primary key,
  session_id uuid not null references auth.sessions on delete cascade,
  created_at timestamptz not null default clock_timestamp(),
  -- When it was exchanged for the next one. Null: it is the session's live token.
  used_at timestamptz
);
create index sessions_user_id_idx on auth.sessions (user_id);
create index refresh_tokens_session_id_idx on auth.refresh_tokens (session_id);
reset role;
