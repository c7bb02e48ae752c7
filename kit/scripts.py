"""Scripts: what the store does in one piece, in its own language (Lua; Redis runs nothing else meanwhile).

Each names its keys first. `last` is the stream's last-generated id, which stays when entries are trimmed away.
"""

from __future__ import annotations

import hashlib

_LAST_ID = """
local function last_id(stream)
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do if info[i] == 'last-generated-id' then return info[i + 1] end end
end
"""

# the log's last id, '0-0' where nothing has been said yet, nothing where it is no longer the session's log
_HEAD = (
    _LAST_ID
    + """
local function head(owner, stream, run_id, name)
  local log, run, begun = unpack(redis.call('HMGET', owner, 'log', 'run', 'begun'))
  if log ~= name or run ~= run_id or (begun and redis.call('EXISTS', stream) == 0) then return nil end
  return begun and last_id(stream) or '0-0'
end
"""
)

# KEYS owner, wake; ARGV run_id, fresh name, ttl ms. -> name, last id, the name before
OPEN = (
    _LAST_ID
    + """
local log, run, was = unpack(redis.call('HMGET', KEYS[1], 'log', 'run', 'was'))
local begun = redis.call('HGET', KEYS[1], 'begun')
local function stream(name) return KEYS[1] .. ':' .. name end
if log and (run ~= ARGV[1] or (begun and redis.call('EXISTS', stream(log)) == 0)) then
  was = log
  log = false
  for _, tail in ipairs({'', ':refs'}) do
    if redis.call('EXISTS', stream(was) .. tail) == 1 then redis.call('RENAME', stream(was) .. tail, stream(ARGV[2]) .. tail) end
  end
  if redis.call('EXISTS', stream(ARGV[2])) == 0 then
    redis.call('HDEL', KEYS[1], 'begun')
    redis.call('DEL', stream(ARGV[2]) .. ':refs')
    begun = false
  end
end
if not log then
  log = ARGV[2]
  redis.call('HSET', KEYS[1], 'log', log, 'run', ARGV[1], 'was', was or '')
  redis.call('XADD', KEYS[2], 'MAXLEN', 256, '*', 'f', KEYS[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {log, begun and last_id(stream(log)) or '0-0', was or ''}
"""
)

# KEYS owner, stream, refs, open turns, wake, around; ARGV run_id, name, ref, digest, body, ttl ms, agents of the turns it opens,
# lease ms, by, turn given away, epoch heard or '', then the turns it concerns -> what, id (and digest), prev, then those whose lease it got
SAY = (
    _HEAD
    + """
local last = head(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
if not last then return {'gone', '', ''} end
local known = ARGV[3] ~= '' and redis.call('HGET', KEYS[3], ARGV[3])
if known then return {'known', known, ''} end
local given = KEYS[2] .. ':lease:' .. ARGV[10]
if ARGV[10] ~= '' and redis.call('GET', given) ~= ARGV[9] then return {'lost', '', ''} end
local epoch = tonumber(string.match(last, '^(%d+)-')) + 1
if ARGV[11] ~= '' and tonumber(ARGV[11]) ~= epoch - 1 then return {'unheard', '', ''} end
if last == '0-0' then redis.call('HSET', KEYS[1], 'begun', '1') end
local id = string.format('%.0f', epoch) .. '-0'
redis.call('XADD', KEYS[2], id, 'f', ARGV[5], 'prev', last)
if ARGV[3] ~= '' then redis.call('HSET', KEYS[3], ARGV[3], id .. ' ' .. ARGV[4]) end
redis.call('XADD', KEYS[6], 'MAXLEN', 256, '*', 'f', string.match(KEYS[1], '}:(.*)') .. ' ' .. id)
local answer = {'new', id, last}
local turns = {unpack(ARGV, 12)}
for agent in string.gmatch(ARGV[7], '[^,]+') do turns[#turns + 1] = id .. '/' .. agent end
for _, turn in ipairs(turns) do redis.call('SADD', KEYS[4], KEYS[1] .. ' ' .. turn) end
for _, turn in ipairs(turns) do -- after all of them: in a slot that is on its way to another server, a lease that is new is refused
  if redis.call('SET', KEYS[2] .. ':lease:' .. turn, ARGV[9], 'NX', 'PX', ARGV[8]) then answer[#answer + 1] = turn end
end
if ARGV[10] ~= '' then
  redis.call('DEL', given)
  redis.call('XADD', KEYS[5], 'MAXLEN', 256, '*', 'f', KEYS[1])
end
for _, i in ipairs({1, 2, 3, 6}) do redis.call('PEXPIRE', KEYS[i], ARGV[6]) end
return answer
"""
)

# KEYS owner, stream; ARGV run_id, name, ttl ms, then of each entry its id, its body and, of a word, the id before it (else '')
# -> 1, 0 where something has been said there, -1 where it is no longer the session's log
FORK = (
    _HEAD
    + """
local last = head(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
if not last then return -1 end
if last ~= '0-0' then return 0 end
redis.call('HSET', KEYS[1], 'begun', '1')
for i = 4, #ARGV, 3 do
  if ARGV[i + 2] == '' then
    redis.call('XADD', KEYS[2], ARGV[i], 'f', ARGV[i + 1])
  else
    redis.call('XADD', KEYS[2], ARGV[i], 'f', ARGV[i + 1], 'prev', ARGV[i + 2])
  end
end
for i = 1, 2 do redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
return 1
"""
)

# KEYS owner, stream, refs and lease of each; ARGV lease ms, ttl ms, then by of each: keep what is ours, and let its log live on.
# A lease that is free stays free: it ran out, or its run has just given it back. -> of each log its last id
RENEW = (
    _LAST_ID
    + """
local heads = {}
for i = 1, #KEYS, 4 do
  if redis.call('GET', KEYS[i + 3]) == ARGV[(i - 1) / 4 + 3] then redis.call('PEXPIRE', KEYS[i + 3], ARGV[1]) end
  for j = 0, 2 do redis.call('PEXPIRE', KEYS[i + j], ARGV[2]) end
  heads[#heads + 1] = redis.call('EXISTS', KEYS[i + 1]) == 1 and last_id(KEYS[i + 1]) or '0-0'
end
return heads
"""
)

# KEYS lease, open turns; ARGV by, member, lease ms -> 1 where the lease was free and the turn is still listed: a list that was read a
# moment ago may name one that waits for a person by now
TAKE = """
if redis.call('SISMEMBER', KEYS[2], ARGV[2]) == 0 then return 0 end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[3]) and 1 or 0
"""

# KEYS owner, stream, lease, open turns; ARGV run_id, name, by, member, epoch heard or '' -> 1 where the turn was let go, -1 where it is
# no longer the session's log: there, a turn of the same name may be open
RELEASE = (
    _HEAD
    + """
local last = head(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
if not last then return -1 end
if ARGV[5] ~= '' and string.match(last, '^(%d+)-') ~= ARGV[5] then return 0 end
if redis.call('GET', KEYS[3]) == ARGV[3] then redis.call('DEL', KEYS[3]) end
if ARGV[4] ~= '' then redis.call('SREM', KEYS[4], ARGV[4]) end
return 1
"""
)

# KEYS a stream for each entry; ARGV for each: epoch heard, number of packets, their bodies, their provider's cursors or ''
# -> for each its id, '' where there is no stream, or the error
APPEND = """
local ids = {}
for i, stream in ipairs(KEYS) do
  local heard, packets, body, at = ARGV[4 * i - 3], tonumber(ARGV[4 * i - 2]), ARGV[4 * i - 1], ARGV[4 * i]
  local id = heard .. '-*'
  if packets > 1 then
    local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    local n = string.match(last and last[1] or '0-0', '-(%d+)$')
    id = heard .. '-' .. string.format('%.0f', n + packets)  -- after a later word, whatever n is, Redis refuses it
  end
  local added
  if at == '' then
    added = redis.pcall('XADD', stream, 'NOMKSTREAM', id, 'f', body)
  else
    added = redis.pcall('XADD', stream, 'NOMKSTREAM', id, 'f', body, 'at', at)
  end
  if type(added) == 'table' then added = added.err end
  ids[i] = added or ''
end
return ids
"""
APPEND_SHA = hashlib.sha1(APPEND.encode()).hexdigest()  # noqa: S324  # Redis' name for it, no protection
