// New results as they come, and whether the station is still heard.

import { ask } from "./api.js";

const SILENCE_MS = 25000; // a beat comes every 10 s
const AGAIN_MS = 1000;

/** Listen to the station.
 *
 * result: called with each new one. opened: called when the station is heard, also again. lost: called with the time
 * (Date) at which it was last heard, again and again while it is not.
 */
export function listen({ result, opened, lost }) {
  let source = null;
  let heardAt = new Date();
  let triedAt = 0;
  let isLost = false;

  const heard = () => {
    heardAt = new Date();
    isLost = false;
  };
  const lose = () => {
    isLost = true;
    lost(heardAt);
  };
  const connect = () => {
    source?.close();
    triedAt = Date.now();
    const own = new EventSource("/v1/events");
    source = own;
    own.addEventListener("open", () => {
      heard();
      opened();
    });
    own.addEventListener("beat", () => {
      if (isLost) opened();
      heard();
    });
    own.addEventListener("result", (event) => {
      heard();
      result(JSON.parse(event.data));
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
    if (isLost) lost(heardAt);
    const isSilent = Date.now() - heardAt > SILENCE_MS;
    if (isSilent && !isLost) lose();
    const isEnded = source.readyState === EventSource.CLOSED;
    const pause = isEnded ? AGAIN_MS : 5 * AGAIN_MS;
    if ((isEnded || isSilent) && Date.now() - triedAt >= pause) connect();
  };

  connect();
  setInterval(watch, AGAIN_MS);
  // A request that got no answer: a sign too, unless the station was heard since it began.
  return { suspect: (began) => isLost || heardAt >= began || lose() };
}
