//! OFP as pure state machines: gate, roster, calls, audit heads; and its codecs.
