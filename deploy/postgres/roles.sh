#!/bin/sh
# Makes the roles of an empty server: PostgreSQL's image runs this once, before it opens its port.
# Elsewhere run it by hand, as a superuser, with PGHOST and the like set, and take the rules of pg_hba.conf beside it
# into the server's own. Needs psql 14 or newer.
#
#   wsm_owner     owns every table; nobody logs in as it
#   wsm_migrator  is a member of wsm_owner: `wsm migrate`
#   wsm_app       sees one tenant at a time: `wsm worker`, and the commands that read
#   wsm_system    sees what a policy names: `wsm clock`, `wsm tenant add`
#   waha          has databases of its own, one for each session, and cannot enter wsm's
set -eu
: "${WSM_MIGRATOR_PASSWORD:?}" "${WSM_APP_PASSWORD:?}" "${WSM_SYSTEM_PASSWORD:?}" "${WAHA_DATABASE_PASSWORD:?}"
exec psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
  --username "${POSTGRES_USER:-postgres}" --dbname "${POSTGRES_DB:-wsm}" <<'SQL'
\getenv migrator WSM_MIGRATOR_PASSWORD
\getenv app WSM_APP_PASSWORD
\getenv system WSM_SYSTEM_PASSWORD
\getenv waha WAHA_DATABASE_PASSWORD
create role wsm_owner nologin;
create role wsm_migrator login password :'migrator' in role wsm_owner;
create role wsm_app login password :'app';
create role wsm_system login password :'system';
create role waha login createdb connection limit 400 password :'waha';
revoke all on database :"DBNAME" from public;
grant connect, create on database :"DBNAME" to wsm_migrator;
grant connect on database :"DBNAME" to wsm_app, wsm_system;
create database waha owner waha;
revoke all on database waha from public;
SQL
