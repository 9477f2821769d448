//! What the kernel's settings do not allow is not agreed to, and the cookie says so.

use super::answers::{check_answer_to_offer, names_mss, offer_of};
use super::*;

#[test]
fn what_is_not_granted_is_not_agreed_to() {
    on_bench(CALM, |bench| {
        for bits in 0..8u8 {
            let [timestamps, sack, wscale] = [0, 1, 2].map(|bit| bits >> bit & 1 == 1);
            let grants = Grants { timestamps, sack, wscale };
            for (reports, options) in [(true, LINUX), (false, LINUX), (true, WINDOWS), (false, WINDOWS)] {
                bench.order(ListenerWords { grants, reports, ..CALM });
                for (client, server) in PAIRS {
                    let flow = tuple(client, server);
                    let mut offer = offer_of(&flow, options);
                    offer.tsval = offer.tsval.filter(|_| timestamps);
                    offer.sack &= sack;
                    offer.wscale = offer.wscale.filter(|_| wscale);
                    let irs = SeqNum::new(7 + u32::from(bits));
                    for hook in HOOKS {
                        let Fate::Sent(answer) = bench.at(hook, &syn(&flow, irs, options)) else {
                            panic!("no answer with {grants:?}")
                        };
                        check_answer_to_offer(bench, &flow, irs, &offer, names_mss(&flow, options), &answer);
                        let told: Vec<_> = bench.take_reports().iter().map(|report| report.offer).collect();
                        assert_eq!(told, if reports { vec![offer] } else { vec![] }, "{grants:?}");
                    }
                }
            }
        }
    });
}
