/* The media thread in C: pacing, RTP header, srtp_protect, send, recvmmsg, header statistics, reports. It never takes the interpreter's lock.
 *
 * harness/caller/pacing.py, port.py, outgoing.py and harness/measure/rfc3550.py are the reference; tests/caller/test_compiled.py compares.
 * libsrtp's functions come as pointers from pylibsrtp, so neither headers nor a second libsrtp are needed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "core.h"

enum { FRAME_SAMPLES = 960, HEADER = 12, BATCH = 16, CONTROL = 64, DRAIN_FRAMES = 2, WINDOW = 1024, RESTART_AFTER = 3000, FIRST_CYCLE = 0x10000 };
static const int64_t FRAME_NS = 20000000, LATE_NS = 10000000, LOST_NS = 200000000, SECOND = 1000000000;
static const uint64_t NTP_EPOCH_S = 2208988800u;
static const uint8_t SILENCE[3] = {0xf8, 0xff, 0xfe};

typedef int (*protect_fn)(void *context, void *packet, int *length);

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

/* harness.clock.offset_ns */
static int64_t offset_ns(void) {
    int64_t best_width = INT64_MAX, best = 0;
    for (int n = 0; n < 6 && best_width >= 2000; n++) {
        struct timespec wall;
        int64_t before = monotonic_ns();
        clock_gettime(CLOCK_REALTIME, &wall);
        int64_t after = monotonic_ns();
        if (after - before < best_width) {
            best_width = after - before;
            best = wall.tv_sec * SECOND + wall.tv_nsec - (before + after) / 2;
        }
    }
    return best;
}

static void put16(uint8_t *at, uint16_t value) { value = htons(value); memcpy(at, &value, 2); }
static void put32(uint8_t *at, uint32_t value) { value = htonl(value); memcpy(at, &value, 4); }
static uint16_t get16(const uint8_t *at) { uint16_t value; memcpy(&value, at, 2); return ntohs(value); }
static uint32_t get32(const uint8_t *at) { uint32_t value; memcpy(&value, at, 4); return ntohl(value); }

static void put(core_port *port, const uint8_t *datagram, int size) {
    if (send(port->fd, datagram, size, MSG_DONTWAIT) < 0)
        port->send_errors++;
}

void core_send(media_core *core, core_port *port, int64_t due_ns) {
    uint8_t packet[2048] __attribute__((aligned(16)));
    const uint8_t *payload = SILENCE;
    uint32_t length = sizeof SILENCE;
    core_clip *clip = NULL;
    uint64_t hushed_to = __atomic_load_n(&port->hushed_to, __ATOMIC_ACQUIRE);
    if (port->clip_head < hushed_to) {
        port->position = 0;
        __atomic_store_n(&port->clip_head, hushed_to, __ATOMIC_RELEASE);
    }
    if (port->clip_head < __atomic_load_n(&port->clip_tail, __ATOMIC_ACQUIRE)) {
        clip = &port->clips[port->clip_head % CORE_CLIPS];
        payload = clip->payload + clip->offsets[port->position];
        length = clip->offsets[port->position + 1] - clip->offsets[port->position];
    }
    packet[0] = 0x80;
    packet[1] = port->payload_type | (port->is_marked ? 0x80 : 0);
    put16(packet + 2, port->sequence);
    put32(packet + 4, port->timestamp);
    put32(packet + 8, port->ssrc);
    memcpy(packet + HEADER, payload, length);
    port->is_marked = 0;
    int size = HEADER + (int)length;
    int failed = ((protect_fn)core->protect)(port->context, packet, &size);
    int64_t sent_ns = monotonic_ns();
    if (failed)
        port->send_errors++;
    else
        put(port, packet, size);
    if (sent_ns - due_ns > port->late_ns)
        port->late_ns = sent_ns - due_ns;
    port->last_due_ns = due_ns;
    port->last_timestamp = port->timestamp;
    port->sequence++;
    port->timestamp += FRAME_SAMPLES;
    port->packets++;
    port->octets += length;
    if (!clip)
        return;
    __atomic_store_n(&clip->sent_ns[port->position], sent_ns, __ATOMIC_RELEASE);
    if (++port->position == clip->frames) {
        port->position = 0;
        __atomic_store_n(&port->clip_head, port->clip_head + 1, __ATOMIC_RELEASE);
    }
}

static void start(core_stream *stream, int64_t extended) {
    stream->base = stream->highest = extended;
    memset(stream->seen, 0, sizeof stream->seen);
}

static int64_t extended_number(core_stream *stream, uint16_t sequence) {
    if (stream->base < 0) {
        start(stream, FIRST_CYCLE + sequence);
        return stream->highest;
    }
    int step = (int16_t)(sequence - (uint16_t)stream->highest);
    if (-WINDOW < step && step < RESTART_AFTER) {
        int64_t extended = stream->highest + step;
        stream->restart = -1;
        if (extended < stream->base)
            stream->base = extended;
        return extended;
    }
    if (stream->restart != sequence) {
        stream->restart = (uint16_t)(sequence + 1);
        return -1;
    }
    stream->expected_before += stream->highest - stream->base + 1;
    start(stream, (((stream->highest >> 16) + 1) << 16) + sequence);
    stream->has_last = 0;
    stream->restart = -1;
    return stream->highest;
}

static int is_seen(const core_stream *stream, int64_t number) { return stream->seen[number >> 6 & 15] >> (number & 63) & 1; }
static void see(core_stream *stream, int64_t number) { stream->seen[number >> 6 & 15] |= 1ULL << (number & 63); }
static void forget(core_stream *stream, int64_t number) { stream->seen[number >> 6 & 15] &= ~(1ULL << (number & 63)); }

static void time_it(core_stream *stream, int64_t at, uint32_t timestamp) {
    if (stream->has_last) {
        double ticks = (double)(at - stream->last_at) * (48000 / 1e9) - (int32_t)(timestamp - stream->last_timestamp);
        stream->jitter += ((ticks < 0 ? -ticks : ticks) - stream->jitter) / 16;
        if (stream->jitter > stream->jitter_max)
            stream->jitter_max = stream->jitter;
        if (stream->jitter > stream->jitter_peak)
            stream->jitter_peak = stream->jitter;
    }
    stream->has_last = 1;
    stream->last_at = at;
    stream->last_timestamp = timestamp;
}

/* Counts one packet. Its extended number; -1 for a duplicate, or a jump that awaits confirmation. */
static int64_t count(core_stream *stream, int64_t at, uint16_t sequence, uint32_t timestamp) {
    int64_t number = extended_number(stream, sequence);
    if (number < 0)
        return -1;
    stream->received++;
    int64_t behind = stream->highest - number;
    if (behind < 0) {
        if (-behind >= WINDOW)
            memset(stream->seen, 0, sizeof stream->seen);
        else
            for (int64_t n = stream->highest + 1; n < number; n++)
                forget(stream, n);
        stream->highest = number;
    } else if (is_seen(stream, number)) {
        stream->duplicates++;
        return -1;
    } else if (behind) {
        stream->reordered++;
    }
    see(stream, number);
    time_it(stream, at, timestamp);
    return number;
}

static core_stream *stream_of(core_port *port, uint32_t ssrc, uint16_t *index) {
    for (uint32_t n = 0; n < port->stream_count; n++)
        if (port->streams[n].ssrc == ssrc) {
            *index = (uint16_t)n;
            return &port->streams[n];
        }
    if (port->stream_count == CORE_STREAMS)
        return NULL;
    core_stream *stream = &port->streams[port->stream_count];
    memset(stream, 0, sizeof *stream);
    stream->ssrc = ssrc;
    stream->base = stream->restart = -1;
    *index = (uint16_t)port->stream_count;
    return stream;
}

/* harness.measure.rtp.protected_payload_bytes, less the tag */
static int payload_bytes(const core_port *port, const uint8_t *packet, int length) {
    int begin = HEADER + 4 * (packet[0] & 0x0f);
    if (packet[0] & 0x10 && begin + 4 <= length)
        begin += 4 + 4 * get16(packet + begin + 2);
    return length - begin - (int)port->tag_bytes;
}

static void heard(core_port *port, const uint8_t *packet, int length, int64_t at) {
    uint16_t index;
    core_stream *stream = length < HEADER ? NULL : stream_of(port, get32(packet + 8), &index);
    if (!stream) {
        port->unreadable++;
        return;
    }
    uint32_t timestamp = get32(packet + 4);
    __atomic_add_fetch(&stream->version, 1, __ATOMIC_ACQ_REL);
    int64_t number = count(stream, at, get16(packet + 2), timestamp);
    __atomic_add_fetch(&stream->version, 1, __ATOMIC_ACQ_REL);
    if (index == port->stream_count)
        __atomic_store_n(&port->stream_count, index + 1, __ATOMIC_RELEASE);
    if (number < 0)
        return;
    int64_t *last = payload_bytes(port, packet, length) > (int)stream->silence_bytes ? &stream->loud_at : &stream->quiet_at;
    if (at > *last)
        *last = at;
    core_packet *kept = &port->ring[port->arrived % CORE_RING];
    kept->at = at;
    kept->number = number;
    kept->timestamp = timestamp;
    kept->length = (uint16_t)length;
    kept->stream = index;
    memcpy(kept->data, packet, length);
    __atomic_store_n(&port->arrived, port->arrived + 1, __ATOMIC_RELEASE);
}

static void keep(core_port *port, const uint8_t *datagram, int length, int64_t at) {
    core_other *kept = &port->other[port->others % CORE_OTHERS];
    kept->at = at;
    kept->length = (uint32_t)length;
    memcpy(kept->data, datagram, length);
    __atomic_store_n(&port->others, port->others + 1, __ATOMIC_RELEASE);
}

void core_drain(media_core *core, core_port *port, int64_t offset) {
    static __thread uint8_t datagrams[BATCH][CORE_DATAGRAM], controls[BATCH][CONTROL];
    static __thread struct iovec vectors[BATCH];
    static __thread struct mmsghdr messages[BATCH];
    int taken;
    do {
        for (int n = 0; n < BATCH; n++) {
            vectors[n] = (struct iovec){datagrams[n], CORE_DATAGRAM};
            messages[n].msg_hdr = (struct msghdr){.msg_iov = &vectors[n], .msg_iovlen = 1, .msg_control = controls[n], .msg_controllen = CONTROL};
        }
        taken = recvmmsg(port->fd, messages, BATCH, MSG_DONTWAIT, NULL);
        for (int n = 0; n < taken; n++) {
            const uint8_t *datagram = datagrams[n];
            int length = (int)messages[n].msg_len;
            struct timespec stamp;
            memcpy(&stamp, controls[n] + 16, sizeof stamp);
            int64_t at = stamp.tv_sec * SECOND + stamp.tv_nsec - offset + core->anchor_ns;
            int is_media = length >= 2 && datagram[0] >= 128 && datagram[0] <= 191;
            if (is_media && !(datagram[1] >= 192 && datagram[1] <= 223))
                heard(port, datagram, length, at);
            else
                keep(port, datagram, length, at);
        }
    } while (taken == BATCH);
}

static int64_t clamped(int64_t value, int64_t low, int64_t high) { return value < low ? low : value > high ? high : value; }

static uint8_t *put_block(uint8_t *at, core_stream *stream, int64_t now) {
    int64_t expected_all = stream->expected_before + stream->highest - stream->base + 1;
    int64_t expected = expected_all - stream->reported_expected, received = stream->received - stream->reported_received;
    stream->reported_expected = expected_all;
    stream->reported_received = stream->received;
    int64_t lost = expected - received, fraction = expected <= 0 || lost <= 0 ? 0 : clamped((lost << 8) / expected, 0, 255);
    int64_t elapsed = now - stream->last_report_at;
    uint32_t delay = stream->last_report ? (uint32_t)(((uint64_t)(elapsed < 0 ? 0 : elapsed) << 16) / SECOND) : 0;
    put32(at, stream->ssrc);
    put32(at + 4, (uint32_t)fraction << 24 | ((uint32_t)clamped(expected_all - stream->received, -0x800000, 0x7fffff) & 0xffffff));
    put32(at + 8, (uint32_t)(stream->highest - FIRST_CYCLE));
    put32(at + 12, (uint32_t)stream->jitter);
    put32(at + 16, stream->last_report);
    put32(at + 20, delay);
    return at + 24;
}

/* A sender report, and in the same datagram a separate receiver report: as harness.caller.port.Port.report */
void core_report(media_core *core, core_port *port, int64_t now_ns) {
    uint8_t packet[512] __attribute__((aligned(16))), *end = packet;
    int64_t now = now_ns + core->anchor_ns;
    port->next_report_ns = now_ns + port->report_every_ns;
    if (port->is_sending && port->packets) {
        put16(end, 0x8000 | 200);
        put16(end + 2, 6);
        put32(end + 4, port->ssrc);
        put32(end + 8, (uint32_t)(now / SECOND + NTP_EPOCH_S));
        put32(end + 12, (uint32_t)(((uint64_t)(now % SECOND) << 32) / SECOND));
        put32(end + 16, port->last_timestamp + (uint32_t)((now_ns - port->last_due_ns) * 48000 / SECOND));
        put32(end + 20, (uint32_t)port->packets);
        put32(end + 24, (uint32_t)port->octets);
        end += 28;
    }
    if (port->stream_count) {
        uint32_t blocks = port->stream_count;
        put16(end, (uint16_t)((0x80 | blocks) << 8 | 201));
        put16(end + 2, (uint16_t)(1 + 6 * blocks));
        put32(end + 4, port->ssrc);
        end += 8;
        for (uint32_t n = 0; n < blocks; n++)
            end = put_block(end, &port->streams[n], now);
    }
    int size = (int)(end - packet);
    if (!size)
        return;
    if (((protect_fn)core->protect_rtcp)(port->context, packet, &size))
        port->send_errors++;
    else
        put(port, packet, size);
}

/* harness.measure.pacing.Lateness.add */
static void record(media_core *core, int64_t due, int64_t done) {
    int64_t late = done - due, fine = 2000, coarse = late / 1000000;
    int64_t bin = late <= 0 ? 0 : late < fine * 10000 ? late / 10000 : fine + (coarse < 2000 ? coarse : 2000);
    core->bins[bin]++;
    if (late > core->max_ns)
        core->max_ns = late;
    if (late <= LATE_NS)
        return;
    core->late[core->late_count % CORE_LATE][0] = due;
    core->late[core->late_count % CORE_LATE][1] = done;
    __atomic_store_n(&core->late_count, core->late_count + 1, __ATOMIC_RELEASE);
}

static core_port *port_at(media_core *core, int slot, int n) { return __atomic_load_n(&core->ports[slot][n], __ATOMIC_ACQUIRE); }

static void serve(media_core *core, int slot, int64_t due, int is_draining) {
    core_port *port;
    int has_sent = 0;
    for (int n = 0; n < CORE_PORTS; n++)
        if ((port = port_at(core, slot, n)) && port->is_sending) {
            core_send(core, port, due);
            has_sent = 1;
        }
    int64_t done = monotonic_ns();
    if (has_sent)
        record(core, due, done);
    int64_t offset = is_draining ? offset_ns() : 0;
    for (int n = 0; n < CORE_PORTS; n++)
        if ((port = port_at(core, slot, n))) {
            if (is_draining)
                core_drain(core, port, offset);
            if (done >= port->next_report_ns)
                core_report(core, port, monotonic_ns());
        }
}

/* Skips the frames that were missed, in RTP time too. */
static int64_t give_up(media_core *core, int64_t behind) {
    int64_t frames = behind / FRAME_NS;
    core_port *port;
    for (int slot = 0; slot < CORE_SLOTS; slot++)
        for (int n = 0; n < CORE_PORTS; n++)
            if ((port = port_at(core, slot, n)))
                port->timestamp += (uint32_t)frames * FRAME_SAMPLES;
    return frames * FRAME_NS;
}

static void *run(void *given) {
    media_core *core = given;
    int64_t step = FRAME_NS / CORE_SLOTS, due = monotonic_ns() + step;
    uint64_t frame = 0;
    int slot = 0;
    while (!__atomic_load_n(&core->is_stopping, __ATOMIC_ACQUIRE)) {
        struct timespec until = {due / SECOND, due % SECOND};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        serve(core, slot, due, frame % DRAIN_FRAMES == 0);
        __atomic_store_n(&core->ticks, core->ticks + 1, __ATOMIC_RELEASE);
        if (++slot == CORE_SLOTS) {
            slot = 0;
            frame++;
        }
        due += step;
        int64_t behind = monotonic_ns() - due;
        if (behind > LOST_NS)
            due += give_up(core, behind);
    }
    __atomic_store_n(&core->is_over, 1, __ATOMIC_RELEASE);
    return NULL;
}

int core_start(media_core *core) { return pthread_create((pthread_t *)&core->thread, NULL, run, core); }

void core_stop(media_core *core) {
    __atomic_store_n(&core->is_stopping, 1, __ATOMIC_RELEASE);
    pthread_join((pthread_t)core->thread, NULL);
}

static int has_left(const core_port *port) {
    uint64_t head = __atomic_load_n(&port->clip_head, __ATOMIC_ACQUIRE);
    return head > port->watched_clip || (head == port->watched_clip && port->position > port->watched_frame);
}

static int wants_attention(const core_port *port, int64_t now) {
    if (port->others != port->others_seen || port->stream_count != port->streams_seen || (port->is_watched && has_left(port)))
        return 1;
    for (uint32_t n = 0; n < port->stream_count; n++) {
        const core_stream *stream = &port->streams[n];
        int is_quiet = stream->wake_quiet_ns && now - stream->loud_at > stream->wake_quiet_ns;
        if (is_quiet || stream->loud_at > stream->wake_loud_at || now >= stream->wake_at)
            return 1;
    }
    return 0;
}

void core_attention(core_port **ports, int count, int64_t now, uint8_t *wanted) {
    for (int n = 0; n < count; n++)
        wanted[n] = (uint8_t)wants_attention(ports[n], now);
}

/* Of what both sides must agree about. */
uint64_t core_sizes(void) { return sizeof(media_core) * 1000003u + sizeof(core_port); }
