-- Deletes what is older than `keep`: calls that have ended, with their transcripts and tool calls, and alerts that were resolved.
-- Returns how many calls and alerts it deleted. Run it every day (pg_cron); an active call is never deleted, however old.
create function public.delete_old_history(keep interval default interval '90 days') returns bigint
  language plpgsql
  security invoker
  set search_path = ''
as $$
declare
  calls_deleted bigint;
  alerts_deleted bigint;
begin
  if keep < interval '1 day' then
    raise exception 'keep is %, wanted at least one day', keep using errcode = '22023';
  end if;
  delete from public.calls where start_time < now() - keep and status <> 'active';
  get diagnostics calls_deleted = row_count;
  delete from public.alerts_history where triggered_at < now() - keep and resolved_at is not null;
  get diagnostics alerts_deleted = row_count;
  delete from public.realtime_canary where recorded_at < now() - interval '1 day';
  return calls_deleted + alerts_deleted;
end
$$;
revoke all on function public.delete_old_history (interval) from public, anon, authenticated;
grant execute on function public.delete_old_history (interval) to service_role;

notify pgrst, 'reload schema';
