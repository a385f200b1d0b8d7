-- alerts_history is written by the receiver of Alertmanager's webhook: one row an episode, however often, late or out of order it is told.
-- An episode is one firing of one alert: fingerprint (its labels) and starts_at. How it ended:
--   resolved    the rule said so
--   timeout     Alertmanager gave it up, because Prometheus no longer spoke of it; the condition was still true, or nobody could be asked
--   swept       Prometheus no longer speaks of it, and no end was ever told: Alertmanager forgot it, as one that was killed does
--   superseded  the next episode began, and the end of this one was never told: it ended and fired again between two ticks of its group, or
--               Prometheus was restarted and its `for` began anew
-- `continues` names the episode before, if that has no end that the rule itself told: perhaps one incident.
alter table public.alerts_history
  add column fingerprint text,
  add column starts_at timestamptz,
  add column labels jsonb,
  add column resolution text check (resolution in ('resolved', 'timeout', 'swept', 'superseded')),
  add column continues uuid references public.alerts_history (id) on delete set null;
create unique index alerts_history_episode_idx on public.alerts_history (fingerprint, starts_at);
create index alerts_history_continues_idx on public.alerts_history (continues) where continues is not null;

-- Writes what one notification tells, all of it or nothing; returns how many rows it changed. What it leaves does not depend on order or repetition,
-- but for `is_firing_now`: Prometheus itself says so, and an episode that had only timed out goes on.
-- alerts: [{fingerprint, starts_at, ends_at (null: firing), severity, service, message, labels, resolution, is_firing_now}]
create function public.record_alerts(alerts jsonb) returns integer
  language plpgsql
  security invoker
  set search_path = ''
as $$
declare
  told record;
  changed integer := 0;
  touched integer;
  later timestamptz;
begin
  for told in
    select * from jsonb_to_recordset(alerts) as a(
      fingerprint text, starts_at timestamptz, ends_at timestamptz, severity text, service text, message text, labels jsonb,
      resolution text, is_firing_now boolean
    )
    -- In one order everywhere: two notifications never wait for each other.
    order by a.fingerprint, a.starts_at
  loop
    perform pg_advisory_xact_lock(hashtextextended(told.fingerprint, 0));
    select min(h.starts_at) into later from public.alerts_history h
      where h.fingerprint = told.fingerprint and h.starts_at > told.starts_at;
    insert into public.alerts_history as h
      (severity, service, message, triggered_at, fingerprint, starts_at, labels, resolved_at, resolution)
    values (
      told.severity, told.service, told.message, told.starts_at, told.fingerprint, told.starts_at, told.labels,
      coalesce(told.ends_at, later),
      case when told.ends_at is not null then told.resolution when later is not null then 'superseded' end
    )
    on conflict (fingerprint, starts_at) do update
      set resolved_at = excluded.resolved_at, resolution = excluded.resolution
      where
        -- An end that was told beats one that was concluded; of two that were told the rule's own beats a timeout, and the first counts.
        (told.ends_at is not null and (
          h.resolution is null or (h.resolution in ('swept', 'superseded') and told.resolution <> 'swept')
          or (h.resolution = 'timeout' and told.resolution = 'resolved')
          or (h.resolution = told.resolution and excluded.resolved_at < h.resolved_at)
        ))
        or (told.ends_at is null and told.is_firing_now and later is null and h.resolution in ('timeout', 'swept'));
    get diagnostics touched = row_count;
    changed := changed + touched;
    -- At most one episode of a fingerprint is open: every one but the last ends when the next begins, unless an end was told.
    update public.alerts_history h
      set resolved_at = next.starts_at, resolution = 'superseded'
      from (
        select e.id, lead(e.starts_at) over (order by e.starts_at) as starts_at
        from public.alerts_history e where e.fingerprint = told.fingerprint
      ) next
      where h.id = next.id and next.starts_at is not null
        and (h.resolved_at is null or (h.resolution = 'superseded' and h.resolved_at <> next.starts_at));
    get diagnostics touched = row_count;
    changed := changed + touched;
    update public.alerts_history h
      set continues = previous.continues
      from (
        select e.id, case when lag(e.resolution) over (order by e.starts_at) <> 'resolved' then lag(e.id) over (order by e.starts_at) end as continues
        from public.alerts_history e where e.fingerprint = told.fingerprint
      ) previous
      where h.id = previous.id and h.continues is distinct from previous.continues;
  end loop;
  return changed;
end
$$;
revoke all on function public.record_alerts (jsonb) from public, anon, authenticated;
grant execute on function public.record_alerts (jsonb) to service_role;

notify pgrst, 'reload schema';
