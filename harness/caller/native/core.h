/* What Python and the compiled media core share. Read by the C compiler and by cffi: no preprocessor here.
 *
 * Each field has one writer: the media thread, or Python where it says so. A counter that ends a ring is written after the entry.
 * Instants are ns: `at` of harness.clock.Clock (Unix), others of CLOCK_MONOTONIC. */

enum {
    CORE_SLOTS = 5,      /* ticks in a frame */
    CORE_PORTS = 256,    /* ports of a slot */
    CORE_STREAMS = 4,    /* received streams of a port */
    CORE_CLIPS = 16,     /* clips that wait */
    CORE_RING = 64,      /* RTP packets kept: 1.28 s of one stream */
    CORE_OTHERS = 16,    /* STUN, DTLS and RTCP datagrams kept */
    CORE_DATAGRAM = 1536,
    CORE_BINS = 4001,    /* harness.measure.pacing.Lateness */
    CORE_LATE = 1024
};

typedef struct {
    const uint8_t *payload;    /* Opus frames, one after another */
    const uint32_t *offsets;   /* frames + 1 */
    int64_t *sent_ns;          /* filled in as frames leave; 0: not yet */
    uint32_t frames;
    uint32_t unused;
} core_clip;

/* RFC 3550 A.1, A.3, A.8: as harness.measure.rfc3550.Receiver */
typedef struct {
    uint32_t ssrc;
    uint32_t version;          /* odd while the statistics below change */
    int64_t base, highest, restart, expected_before, received, duplicates, reordered;
    double jitter, jitter_max, jitter_peak;     /* peak: Python resets it */
    int64_t last_at;
    uint32_t last_timestamp, has_last;
    uint64_t seen[16];
    int64_t loud_at, quiet_at; /* last arrival of a payload of more than silence_bytes, and of another one */
    int64_t reported_expected, reported_received;
    uint32_t silence_bytes;    /* Python */
    uint32_t last_report;      /* Python: middle of the NTP time of the peer's sender report */
    int64_t last_report_at;    /* Python: when that arrived */
    int64_t wake_loud_at, wake_quiet_ns, wake_at;   /* Python: see core_attention */
} core_stream;

typedef struct {
    int64_t at;
    int64_t number;            /* extended sequence number */
    uint32_t timestamp;
    uint16_t length;
    uint16_t stream;
    uint8_t data[CORE_DATAGRAM];
} core_packet;

typedef struct {
    int64_t at;
    uint32_t length;
    uint8_t data[CORE_DATAGRAM];
} core_other;

typedef struct {
    /* Python, before the port is handed over */
    int32_t fd, is_sending;
    void *context;             /* libsrtp's */
    uint32_t ssrc, timestamp, tag_bytes;
    uint16_t sequence;
    uint8_t payload_type, is_marked;
    int64_t next_report_ns, report_every_ns;

    core_clip clips[CORE_CLIPS];
    uint64_t clip_head;        /* clips done with */
    uint64_t clip_tail;        /* Python: clips given */
    uint64_t hushed_to;        /* Python: clips before this are to be broken off */
    uint32_t position, last_timestamp;
    uint64_t packets, octets, send_errors;
    int64_t last_due_ns, late_ns;               /* late_ns: the latest packet; Python resets it */

    uint64_t arrived, others, unreadable;
    uint64_t others_seen;      /* Python */
    uint32_t stream_count;
    uint32_t streams_seen;     /* Python */
    uint64_t is_watched;       /* Python: a clip is on its way, and of interest once */
    uint64_t watched_clip;     /* Python: this clip is done with, or */
    uint64_t watched_frame;    /* Python: this frame of it has left */
    core_stream streams[CORE_STREAMS];
    core_packet ring[CORE_RING];
    core_other other[CORE_OTHERS];
} core_port;

typedef struct {
    core_port *ports[CORE_SLOTS][CORE_PORTS];   /* Python */
    int64_t anchor_ns;         /* Python: Clock.anchor_ns */
    void *protect, *protect_rtcp;               /* Python: libsrtp's */
    int32_t is_stopping;       /* Python */
    int32_t is_over;
    uint64_t ticks;            /* every tick, also an empty one */
    uint64_t bins[CORE_BINS];
    int64_t max_ns;
    uint64_t late_count;
    int64_t late[CORE_LATE][2];                 /* due, done */
    uint64_t thread;
} media_core;

int core_start(media_core *core);
void core_stop(media_core *core);
uint64_t core_sizes(void);
/* Which ports Python has to look at now: something other than RTP or a new stream came, the frame that is watched left, or for a stream
 * a payload over silence_bytes came after wake_loud_at, none for wake_quiet_ns (if not 0), or wake_at has come. */
void core_attention(core_port **ports, int count, int64_t now, uint8_t *wanted);
/* For tests: one step each, in the calling thread. */
void core_send(media_core *core, core_port *port, int64_t due_ns);
void core_drain(media_core *core, core_port *port, int64_t offset_ns);
void core_report(media_core *core, core_port *port, int64_t now_ns);
