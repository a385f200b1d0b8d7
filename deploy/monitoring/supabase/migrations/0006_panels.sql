-- What panels.yml reads of the call history, summed where the rows are: a page that counts rows itself stops at the server's limit of 1,000.
-- Security invoker: row security holds for whoever asks, so that the judge counts the harness's own calls only. "Last 24 h" is by the server's
-- clock, and by start_time in every view: the number and the bars of the chart count the same calls.
create view public.panel_calls_24h with (security_invoker = true) as
  select count(*) as calls, avg(duration_seconds)::double precision as mean_duration_seconds
  from public.calls
  where start_time > now() - interval '24 hours' and start_time <= now();

create view public.panel_calls_by_hour with (security_invoker = true) as
  select date_trunc('hour', start_time) as hour, count(*) as calls
  from public.calls
  where start_time > now() - interval '24 hours' and start_time <= now()
  group by 1;

create view public.panel_tools_24h with (security_invoker = true) as
  select tool_name, count(*) as calls
  from public.tool_executions
  where executed_at > now() - interval '24 hours' and executed_at <= now()
  group by 1;

-- Null while nobody has said anything: no share of nothing.
create view public.panel_tool_share_24h with (security_invoker = true) as
  select 100.0::double precision * tools.number / nullif(turns.number, 0) as tool_calls_per_100_user_turns
  from (select count(*) as number from public.tool_executions where executed_at > now() - interval '24 hours' and executed_at <= now()) as tools,
    (select count(*) as number from public.transcripts where role = 'user' and timestamp > now() - interval '24 hours' and timestamp <= now()) as turns;

do $$
declare
  name text;
begin
  foreach name in array array['panel_calls_24h', 'panel_calls_by_hour', 'panel_tools_24h', 'panel_tool_share_24h'] loop
    execute format('revoke all on public.%I from public, anon, authenticated, service_role', name);
    execute format('grant select on public.%I to authenticated, service_role, voxproof_judge', name);
  end loop;
end
$$;

notify pgrst, 'reload schema';
