-- The harness's own access: it reads, it writes nothing, and of the tables of calls it sees only its own, whose call_id begins with vp-.
-- A token for it is signed with the project's JWT secret: {"role": "voxproof_judge", "exp": ...}; see docs/supabase.md.
do $$
begin
  create role voxproof_judge nologin noinherit;
exception
  when duplicate_object then null; -- roles belong to the whole cluster
end
$$;
grant voxproof_judge to authenticator;
grant usage on schema public to voxproof_judge;
grant select on public.calls, public.transcripts, public.tool_executions, public.alerts_history, public.realtime_canary to voxproof_judge;
create policy calls_judge on public.calls for select to voxproof_judge using (call_id like 'vp-%');
create policy transcripts_judge on public.transcripts for select to voxproof_judge using (call_id like 'vp-%');
create policy tool_executions_judge on public.tool_executions for select to voxproof_judge using (call_id like 'vp-%');
create policy alerts_history_judge on public.alerts_history for select to voxproof_judge using (true);
create policy realtime_canary_judge on public.realtime_canary for select to voxproof_judge using (true);

-- The server's clock, for whoever has to know how far it is from their own.
create function public.server_now() returns timestamptz
  language sql
  volatile
  security invoker
  set search_path = ''
as $$ select clock_timestamp() $$;
revoke all on function public.server_now() from public, anon;
grant execute on function public.server_now() to authenticated, service_role, voxproof_judge;

notify pgrst, 'reload schema';
