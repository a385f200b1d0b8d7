-- Call history (spec R10): calls, transcripts, tool_executions, alerts_history.
-- recorded_at is the server's own clock when the row was written (clock_timestamp, since now() is the start of the transaction): write lag does
-- not rest on a client's clock. ids have a default, and clients may bring their own, so that a retried insert doubles nothing.

create table public.calls (
  id uuid primary key default gen_random_uuid(),
  call_id text unique not null,
  phone_number text not null,
  direction text check (direction in ('inbound', 'outbound')),
  status text check (status in ('active', 'completed', 'failed', 'transferred')),
  start_time timestamptz not null default now(),
  end_time timestamptz,
  duration_seconds integer,
  room_name text,
  agent_version text,
  -- Touched by the job while it lives; a silent active call is a dead job's.
  heartbeat_at timestamptz not null default clock_timestamp(),
  recorded_at timestamptz not null default clock_timestamp()
);

create table public.transcripts (
  id uuid primary key default gen_random_uuid(),
  call_id text references public.calls (call_id) on delete cascade,
  role text check (role in ('user', 'assistant', 'system')),
  content text not null,
  timestamp timestamptz not null default now(),
  recorded_at timestamptz not null default clock_timestamp()
);

create table public.tool_executions (
  id uuid primary key default gen_random_uuid(),
  call_id text references public.calls (call_id) on delete cascade,
  tool_name text not null,
  parameters jsonb,
  result jsonb,
  success boolean default true,
  latency_ms integer,
  executed_at timestamptz default now(),
  recorded_at timestamptz not null default clock_timestamp()
);

create table public.alerts_history (
  id uuid primary key default gen_random_uuid(),
  severity text check (severity in ('critical', 'warning', 'info')),
  service text not null,
  message text not null,
  triggered_at timestamptz default now(),
  resolved_at timestamptz,
  acknowledged boolean default false,
  recorded_at timestamptz not null default clock_timestamp()
);

create index calls_start_time_idx on public.calls (start_time desc);
create index calls_alive_idx on public.calls (heartbeat_at) where status = 'active';
create index transcripts_call_id_idx on public.transcripts (call_id);
create index tool_executions_call_id_idx on public.tool_executions (call_id);
create index alerts_history_triggered_at_idx on public.alerts_history (triggered_at desc);

-- Explicit grants: a Supabase project no longer gives any by itself, not even to service_role, which otherwise passes by row level security.
-- Nobody reads without signing in; nobody but the service key writes.
do $$
declare
  name text;
begin
  foreach name in array array['calls', 'transcripts', 'tool_executions', 'alerts_history'] loop
    execute format('alter table public.%I enable row level security', name);
    execute format('revoke all on public.%I from public, anon, authenticated, service_role', name);
    execute format('grant select on public.%I to authenticated', name);
    execute format('grant select, insert, update, delete on public.%I to service_role', name);
    execute format('create policy %I on public.%I for select to authenticated using (true)', name || '_read', name);
  end loop;
end
$$;

-- Ends calls whose job died without a word: an active call silent for longer than max_silence becomes failed, and ends at its last heartbeat.
-- Returns the call_ids it ended. Run it every minute (pg_cron, or the worker at its start); twice the heartbeat's interval is too little.
create function public.end_dead_calls(max_silence interval default interval '60 seconds') returns setof text
  language sql
  security invoker
  set search_path = ''
as $$
  update public.calls
  set status = 'failed',
      end_time = heartbeat_at,
      duration_seconds = greatest(0, round(extract(epoch from heartbeat_at - start_time)))::integer
  where status = 'active' and heartbeat_at < clock_timestamp() - max_silence
  returning call_id
$$;
revoke all on function public.end_dead_calls (interval) from public, anon, authenticated;
grant execute on function public.end_dead_calls (interval) to service_role;

notify pgrst, 'reload schema';
