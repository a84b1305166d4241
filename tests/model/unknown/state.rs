//! What a state is while a key comes, and what can happen in it.

pub(super) type Ticks = u8;

/// The masters, by the epoch in which they answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Epoch {
    First,
    Second,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Held {
    Nothing,
    Unknown,
    Allow,
}

/// What a script of the store returned, and where that was true. The only change is that the key came, at revision 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Reply {
    pub(super) epoch: Epoch,
    pub(super) revision: u8,
    pub(super) is_there: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Renewal {
    None,
    Sent { left: Ticks },
    Answered { left: Ticks, reply: Reply },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Call {
    None,
    LeaseRead(Ticks),
    UnknownSeen(Ticks),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Gateway {
    /// False once it cannot matter any more.
    pub(super) watched: bool,
    pub(super) epoch: Option<Epoch>,
    pub(super) applied: u8,
    pub(super) held: Held,
    pub(super) lease: Ticks,
    pub(super) renewal: Renewal,
    pub(super) load: Option<Reply>,
    pub(super) call: Call,
    /// Registered in the epoch in which the import was taken, and not yet acknowledged.
    pub(super) awaited: bool,
    pub(super) registered: [bool; 2],
}

impl Gateway {
    pub(super) const NEW: Self = Self {
        watched: true,
        epoch: None,
        applied: 0,
        held: Held::Nothing,
        lease: 0,
        renewal: Renewal::None,
        load: None,
        call: Call::None,
        awaited: false,
        registered: [false; 2],
    };

    pub(super) fn tick(&mut self) {
        let down = |left: &mut Ticks| *left = left.saturating_sub(1);
        down(&mut self.lease);
        if let Renewal::Sent { left } | Renewal::Answered { left, .. } = &mut self.renewal {
            down(left);
        }
        if let Call::LeaseRead(left) | Call::UnknownSeen(left) = &mut self.call {
            down(left);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Writer {
    Idle,
    /// A dead gateway may be among those it waits for: then only time helps.
    Taken {
        epoch: Epoch,
        left: Ticks,
        ghost: bool,
    },
    Answered,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State<const GATEWAYS: usize> {
    pub(super) imported: bool,
    /// Whether each master has the key, and how long it still answers. No end for the one that is master.
    pub(super) masters: [Option<Master>; 2],
    pub(super) ghosts: [bool; 2],
    pub(super) gateways: [Gateway; GATEWAYS],
    pub(super) writer: Writer,
    pub(super) quarantine: Ticks,
    pub(super) crashes: u8,
    pub(super) denied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Master {
    pub(super) has_key: bool,
    pub(super) revision: u8,
    pub(super) ends: Option<Ticks>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Tick,
    Promote,
    Write,
    /// The write answers. Gateways meet nowhere but in the writer, so from here on only one of them is watched.
    Answer {
        watch: usize,
    },
    Renew(usize),
    Serve(usize, Epoch),
    Receive(usize),
    Load(usize, Epoch),
    Fill(usize),
    Forget(usize),
    Crash(usize),
    Call(usize),
    LookUp(usize),
    ReadClock(usize),
}
