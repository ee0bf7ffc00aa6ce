-- An order, its event, and what it takes from the stock: all of it or nothing.
BEGIN;
INSERT INTO orders (item, pieces) VALUES (:'item', :'pieces') RETURNING id \gset
INSERT INTO outbox (stream, type, data)
VALUES ('topic:orders', 'placed', json_build_object('order', :id, 'item', :'item', 'pieces', :'pieces'::int));
UPDATE stock SET pieces = pieces - :'pieces' WHERE item = :'item';
COMMIT;
\echo :id
