// New results and reviews as they come, and whether the station is still heard.

import { ask } from "./api.js";
import { showLost } from "./frame.js";
import { minuteOf, text } from "./texts.js";

const SILENCE_MS = 25000; // a beat comes every 10 s
const AGAIN_MS = 1000;

/** Listen to the station while the page is seen: a browser has few connections, and hidden pages share them.
 *
 * result: called with each new one; review: with each whose review was changed. opened: called when the station is
 * heard, also again: what was missed is to be asked for. A lost connection is shown.
 */
export function listen({ result = () => {}, review, opened }) {
  let source = null;
  let heardAt = new Date();
  let triedAt = 0;
  let shownAt = 0; // when the page was seen again
  let isLost = false;

  const heard = () => {
    heardAt = new Date();
    isLost = false;
  };
  const lose = () => {
    isLost = true;
    showLost(text("lost", { time: minuteOf(heardAt) }));
  };
  const open = () => {
    heard();
    showLost(null);
    opened();
  };
  const connect = () => {
    source?.close();
    triedAt = Date.now();
    const own = new EventSource("/v1/events");
    source = own;
    own.addEventListener("open", open);
    for (const [name, called] of Object.entries({ beat: () => {}, result, review })) {
      own.addEventListener(name, (event) => {
        if (isLost) open();
        heard();
        called(JSON.parse(event.data));
      });
    }
    own.addEventListener("ended", () => {
      own.close();
      ask("/v1/me").then(() => location.reload(), () => {}); // to the login; or somebody else has logged in here
    });
    own.addEventListener("error", () => {
      if (own !== source) return;
      lose();
      triedAt = Date.now();
      // Answered with an error, the browser does not try again by itself: it may be that a login is needed.
      if (own.readyState === EventSource.CLOSED) ask("/v1/me").catch(() => {});
    });
  };
  const watch = () => {
    if (document.hidden) return;
    if (isLost) lose();
    const isSilent = Date.now() - Math.max(heardAt, shownAt) > SILENCE_MS;
    if (isSilent && !isLost) lose();
    const isEnded = source.readyState === EventSource.CLOSED;
    const pause = isEnded ? AGAIN_MS : 5 * AGAIN_MS;
    if ((isEnded || isSilent) && Date.now() - triedAt >= pause) connect();
  };

  const attend = () => {
    if (document.hidden) {
      source?.close();
      return;
    }
    shownAt = Date.now();
    connect();
  };

  attend();
  setInterval(watch, AGAIN_MS);
  document.addEventListener("visibilitychange", attend);
  // A request that got no answer: a sign too, unless the station was heard since it began.
  return { suspect: (began) => isLost || heardAt >= began || lose() };
}
