-- Realtime (spec R11): calls INSERT -> shown as active, calls UPDATE -> moved to history, alerts_history INSERT -> toast.
-- A table that is already published stays so; `alter publication ... add table` alone would fail on repeat.

-- One row written and seen through Realtime proves that a subscription delivers; "subscribed" alone does not.
create table public.realtime_canary (
  id uuid primary key default gen_random_uuid(),
  recorded_at timestamptz not null default clock_timestamp()
);
alter table public.realtime_canary enable row level security;
revoke all on public.realtime_canary from public, anon, authenticated, service_role;
grant select on public.realtime_canary to authenticated;
grant select, insert, delete on public.realtime_canary to service_role;
create policy realtime_canary_read on public.realtime_canary for select to authenticated using (true);

do $$
declare
  name text;
begin
  if not exists (select 1 from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
  foreach name in array array['calls', 'alerts_history', 'realtime_canary'] loop
    if not exists (
      select 1 from pg_publication_tables where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = name
    ) then
      execute format('alter publication supabase_realtime add table public.%I', name);
    end if;
  end loop;
end
$$;

-- The old row comes with an UPDATE: a page that moves a call to its history sees which status it left. It doubles the log of wide rows; these are narrow.
alter table public.calls replica identity full;

notify pgrst, 'reload schema';
